"""The demo: a small real application, three tenants, and books that balance against the invoice."""
