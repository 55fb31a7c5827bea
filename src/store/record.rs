//! The bytes of records: what lies in the log, and its format version.
