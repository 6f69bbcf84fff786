"""The report of one experiment: one self-contained HTML file, for inspectors and researchers."""

from pipeline_lib.report.gallery import CategoryGallery, category_gallery
from pipeline_lib.report.page import render_report
from pipeline_lib.report.record import RunRecord

__all__ = ["CategoryGallery", "RunRecord", "category_gallery", "render_report"]
