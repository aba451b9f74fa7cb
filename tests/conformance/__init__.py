"""transformers' own common test suites over the models and the extractor: `make conformance`."""
