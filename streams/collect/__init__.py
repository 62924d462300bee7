"""`trustwatch collect`: an HTTP endpoint for webhooks and SDKs, which writes what they send to the raw topics.

A request runs `app → body → auth → sources → limits → buffer`. It is answered with success only once Kafka has all of
its events on all in-sync replicas. What stands in the raw topics then is what ingest reads from anybody else: one
message an event, in the vendor's own form.
"""
