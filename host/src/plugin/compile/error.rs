//! Why there is no machine code.

use std::io;
use std::time::Duration;

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// The compiler says what is wrong with it.
    #[error("{0}")]
    Refused(String),
    /// It takes too long.
    #[error("compiling it had not ended after {0:?} (compiler.timeout)")]
    Timeout(Duration),
    /// It takes too much memory.
    #[error("compiling it takes more than {0} bytes of memory (compiler.memory)")]
    Memory(usize),
    /// It becomes too much code.
    #[error("it compiles to more than {0} bytes (compiler.max_code)")]
    TooLarge(usize),
    /// Somebody ended the compiler, or the system did when it ran out of memory.
    #[error("the compiler was killed by signal {signal}")]
    Killed {
        /// The number of the signal.
        signal: i32,
    },
    /// The compiler failed.
    #[error("the compiler failed on it: {0}")]
    Crashed(String),
    /// The compiler compiles for something else.
    #[error("the compiler is not of the version that runs: start the gateway anew")]
    Foreign,
    /// The compiler did not start, or cannot be talked to.
    #[error("the compiler cannot be used: {0}")]
    Unusable(#[from] io::Error),
}

impl CompileError {
    /// Whether it might do at another time: it is not, or not surely, the component's doing.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Killed { .. } | Self::Unusable(_))
    }
}
