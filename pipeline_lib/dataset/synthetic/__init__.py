"""Made-up pictures in AutoVI's layout: the six categories, their defects and their masks, drawn from simple shapes."""
