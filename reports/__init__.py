"""Templates, styles, scripts and schemas of the reports (package data), and a gallery of examples."""
