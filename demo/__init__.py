"""The demo: the whole engine on generated markets, or on recorded candles."""
