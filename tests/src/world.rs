//! Components with the interfaces of a world and no code: each of their functions traps.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve, SourceMap};

use crate::Component;

/// The files of the contract.
const CONTRACT: [(&str, &str); 8] = [
    ("authenticator.wit", include_str!("../../wit/authenticator.wit")),
    ("directory.wit", include_str!("../../wit/directory.wit")),
    ("lifecycle.wit", include_str!("../../wit/lifecycle.wit")),
    ("logging.wit", include_str!("../../wit/logging.wit")),
    ("publications.wit", include_str!("../../wit/publications.wit")),
    ("router.wit", include_str!("../../wit/router.wit")),
    ("types.wit", include_str!("../../wit/types.wit")),
    ("worlds.wit", include_str!("../../wit/worlds.wit")),
];

impl Component {
    /// A component of this world of the contract. `changes` replace text in the contract before: from, to.
    pub fn hollow(world: &str, changes: &[(&str, &str)]) -> Self {
        let mut files = SourceMap::new();
        let mut changed = 0;
        for (name, text) in CONTRACT {
            let mut text = text.to_owned();
            for (from, to) in changes {
                changed += usize::from(text.contains(from));
                text = text.replace(from, to);
            }
            files.push_str(name, text);
        }
        assert!(changed >= changes.len(), "the contract does not contain the text to change: {changes:?}");
        let parsed = files.parse().map_err(|(_, error)| format!("{error:?}")).expect("WIT");
        let mut resolve = Resolve::default();
        let package = resolve.push_group(parsed).expect("WIT");
        let world = resolve.select_world(&[package], Some(world)).expect("a world of the contract");
        let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a module");
        let mut encoder = ComponentEncoder::default().module(&module).expect("a module");
        Self::from_bytes(&encoder.encode().expect("a component"))
    }
}
