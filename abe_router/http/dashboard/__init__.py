"""The pages of the dashboard: operations rendered as HTML by Jinja2.

Each page works without JavaScript: forms post, and the answer redirects to a page. `static/dashboard.js` only
makes an open page live.
"""
