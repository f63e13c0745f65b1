//! A packet that is a byte slice, and tables that are hash maps.
