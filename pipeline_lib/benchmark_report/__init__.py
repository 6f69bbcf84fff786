"""The report of a benchmark: one HTML file that needs nothing beside itself."""

from pipeline_lib.benchmark_report.page import BenchmarkRecord, render_benchmark

__all__ = ["BenchmarkRecord", "render_benchmark"]
