"""The HTTP surface held to its own OpenAPI document, with requests that nobody would write."""
