//! Bytes to messages and back. Remembers nothing.
