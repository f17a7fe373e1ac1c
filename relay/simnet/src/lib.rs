//! Engines joined by a seeded network under a virtual clock. For tests.
