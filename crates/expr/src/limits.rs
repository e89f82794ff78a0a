//! The bounds on one expression. Its author is trusted to configure the pipeline, not to know what
//! overflows a stack: everything here is checked before the first event is read.

/// Length of the source in bytes.
pub const SOURCE_BYTES_MAX: usize = 8 * 1024;

/// Nesting of brackets in the source, checked before the parser sees it.
pub const BRACKET_DEPTH_MAX: usize = 48;

/// Unary operators in a row (`!!!x`, `---x`).
pub const UNARY_RUN_MAX: usize = 24;

/// Conditionals (`?:`) in one expression.
pub const TERNARIES_MAX: usize = 48;

/// Depth of the syntax tree. `a + a + a` nests; `a && a && a` does not, the parser balances it.
pub const TREE_DEPTH_MAX: usize = 100;

/// Nodes of the syntax tree, after macros are expanded.
pub const TREE_NODES_MAX: usize = 5_000;

/// Comprehensions (`exists`, `map`, ...) within each other.
pub const COMPREHENSION_DEPTH_MAX: usize = 3;

/// Estimated steps of one interpreted evaluation.
pub const COST_MAX: u64 = 1_000_000;

/// Length of a regular expression in bytes.
pub const PATTERN_BYTES_MAX: usize = 512;

/// Estimated size of a compiled regular expression, in literals; a class counts for several.
pub const PATTERN_SIZE_MAX: u64 = 4_000;

/// Levels of a JSON record that an expression can see; what lies deeper is null.
pub const RECORD_DEPTH_MAX: usize = 128;
