"""A few answers before and after an edit, before it is paid for: `driver label --preview`."""
