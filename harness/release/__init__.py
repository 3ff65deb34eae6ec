"""One release of the chart in one namespace: install it, watch it, describe it, remove it."""
