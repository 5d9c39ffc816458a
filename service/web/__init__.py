"""The pages: server-rendered, of the same functions as the API, with nothing fetched from elsewhere."""
