"""Pictures and pages without a subject: vector drawings, axes, LaTeX tables, HTML templates."""
