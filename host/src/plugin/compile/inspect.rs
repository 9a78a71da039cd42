//! What is looked at in a component before it runs: what no limit could bound then.

use anyhow::{bail, ensure};
use wasmparser::{FunctionBody, ImportSectionReader, Operator, Parser, Payload, TypeRef};
use wasmtime::ResourcesRequired;
use wasmtime::component::Component;

use super::startup::Startup;
use crate::plugin::engine;

/// Core modules of one component. Python comes as dozens of libraries.
pub(crate) const MODULES: usize = 200;

/// Which rules these are: what was compiled under others is inspected, and so compiled, again. To be raised with each change.
pub(crate) const RULES: u32 = 2;

/// Places in one function from which it leaves its own code: for an imported function, for one that is known only when it
/// runs, or for what the engine does for it on memories and tables. A function is interrupted where it begins, where it
/// loops, and between the parts of a large copy or fill of memory, but not in a straight line between these: this many
/// exits take about a millisecond. The largest functions of JavaScript's and Python's runtimes have some hundreds.
const EXITS: usize = 10_000;

/// Checks, before it is compiled, that a component has no more of anything than it may have. What is malformed is left to the compiler.
///
/// # Errors
/// What it has too much of.
pub(crate) fn inspect(component: &[u8]) -> anyhow::Result<()> {
    // Each may cost a file descriptor, for what its memory is at the beginning, whether it is ever instantiated or not.
    let mut modules = 0;
    // Of the module that is being read: its imported functions are numbered first.
    let mut imported = 0;
    let mut startup = Startup::default();
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } => (modules, imported, startup) = (modules + 1, 0, Startup::default()),
            Payload::ImportSection(imports) => {
                startup.imports(imports.clone());
                imported = functions(imports);
            }
            Payload::TableSection(tables) => startup.tables(tables)?,
            Payload::GlobalSection(globals) => startup.globals(globals)?,
            Payload::ElementSection(elements) => startup.elements(elements)?,
            Payload::DataSection(data) => startup.data(data)?,
            Payload::CodeSectionEntry(function) => {
                let exits = exits(&function, imported);
                ensure!(exits <= EXITS, "one of its functions has {exits} calls out of its code, the limit is {EXITS}");
            }
            _ => {}
        }
    }
    if modules > MODULES {
        bail!("it has {modules} core modules, the limit is {MODULES}");
    }
    Ok(())
}

/// Checks that an instance of a component has no more memories and tables than it may have.
///
/// # Errors
/// What it has too much of.
pub(crate) fn resources(component: &Component) -> anyhow::Result<()> {
    // A component that imports core modules has no such sum; it cannot be linked either.
    let Some(ResourcesRequired { num_memories, num_tables, .. }) = component.resources_required() else {
        return Ok(());
    };
    let (memories, tables) = (engine::MEMORIES, engine::TABLES);
    ensure!(num_memories <= memories, "its core modules have {num_memories} linear memories, the limit is {memories}");
    ensure!(num_tables <= tables, "its core modules have {num_tables} tables, the limit is {tables}");
    Ok(())
}

fn functions(imports: ImportSectionReader<'_>) -> usize {
    let is_function = |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
    imports.into_imports().map_while(Result::ok).filter(is_function).count()
}

fn exits(function: &FunctionBody<'_>, imported: usize) -> usize {
    let Ok(operators) = function.get_operators_reader() else { return 0 };
    let leaves = |operator: &Operator<'_>| match *operator {
        Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
            (function_index as usize) < imported
        }
        Operator::CallIndirect { .. }
        | Operator::ReturnCallIndirect { .. }
        | Operator::CallRef { .. }
        | Operator::ReturnCallRef { .. }
        | Operator::MemoryGrow { .. }
        | Operator::MemoryInit { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryFill { .. }
        | Operator::TableGrow { .. }
        | Operator::TableInit { .. }
        | Operator::TableCopy { .. }
        | Operator::TableFill { .. }
        | Operator::TableGet { .. }
        | Operator::RefFunc { .. }
        | Operator::MemoryAtomicNotify { .. } => true,
        _ => false,
    };
    operators.into_iter().map_while(Result::ok).filter(leaves).count()
}
