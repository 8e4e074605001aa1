"""The live dashboard: pages in a browser, by Dash, over the published index."""
