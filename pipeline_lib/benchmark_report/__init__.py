"""The report of a benchmark: one HTML file that needs nothing beside itself, its figures as files, its tables."""

from pipeline_lib.benchmark_report.page import render_benchmark
from pipeline_lib.benchmark_report.record import BenchmarkRecord
from pipeline_lib.benchmark_report.written import write_benchmark

__all__ = ["BenchmarkRecord", "render_benchmark", "write_benchmark"]
