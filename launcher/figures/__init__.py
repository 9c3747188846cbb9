"""Figures as inline SVG, made by hand: no plotting library at run time, and a page stays one small file."""
