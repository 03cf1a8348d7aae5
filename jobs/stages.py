"""The stages of the pipeline, in order, and where their transforms are. Adding a stage is adding a line."""

STAGES: dict[str, str] = {
    "ingest": "transforms.ingest:Ingest",
    "transcribe": "transforms.transcribe:Transcribe",
    "measure": "transforms.measure:Measure",
    "align": "transforms.align:Align",
    "tokenize": "transforms.tokenize:Tokenize",
    "echo": "transforms.echo:Echo",
    "publish_s2t": "transforms.publish:PublishS2T",
    "publish_t2c": "transforms.publish:PublishT2C",
    "publish_echo": "transforms.publish:PublishEcho",
}
