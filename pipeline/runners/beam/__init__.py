"""The Apache Beam runner."""
