//! What the API's kinds are: discovery, schemas, defaulting, validation, patches, selectors and tables, all pure.
