"""The formats of requests and answers over HTTP, the same in a body and in a line of a batch."""
