"""Figures as data, and the SVG or table that pages draw of them by hand; printed.py draws them for print."""
