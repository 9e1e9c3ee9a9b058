"""Programs of others in front of chatd: what each of them asks, gets, and needs beside its URL."""
