//! Inspects a component before it runs, for everything that no limit could bound then.

use anyhow::{bail, ensure};
use wasmparser::{FunctionBody, ImportSectionReader, Operator, Parser, Payload, TypeRef};
use wasmtime::ResourcesRequired;
use wasmtime::component::Component;

use super::startup::Startup;
use crate::plugin::engine;

/// Most core modules of one component. A Python component has dozens of libraries.
pub(crate) const MODULES: usize = 200;

/// The version of these rules. A component that was compiled under other rules is inspected and compiled again. Raise
/// this number with each change of the rules.
pub(crate) const RULES: u32 = 2;

/// Most exits of one function. An exit is a place where the function leaves its own code: to call an imported function,
/// to call a function that is known only when it runs, or to have the engine work on memories or tables. A function can
/// be interrupted where it begins, where it loops, and between the parts of a large copy or fill of memory, but not in
/// a straight line between these places. This many exits take about a millisecond. The largest functions of
/// JavaScript's and Python's runtimes have some hundreds.
const EXITS: usize = 10_000;

/// Checks a component against these limits before it is compiled. What is malformed is left to the compiler.
///
/// # Errors
/// If the component is past a limit. The error names the limit.
pub(crate) fn inspect(component: &[u8]) -> anyhow::Result<()> {
    // Each module may cost a file descriptor for the initial content of its memory, even if it is never instantiated.
    let mut modules = 0;
    // Imported functions of the module that is being read. They have the lowest numbers.
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

/// Checks that an instance of a component has no more memories and tables than allowed.
///
/// # Errors
/// If the instance has too many. The error names the limit.
pub(crate) fn resources(component: &Component) -> anyhow::Result<()> {
    // For a component that imports core modules, there is no such sum. Such a component cannot be linked either.
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
