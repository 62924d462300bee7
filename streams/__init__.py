"""The line: ingest → sessionize → combine → detect → judge → export. Start reading at `streams.app`."""
