//! Plugin files: the fixture, which follows a script; the default plugins; and files that are not plugins.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::build;

/// The bytes before the script in the fixture (`tests/fixtures/src/script.rs`), and the longest script.
const MARK: &[u8] = b"hotgate fixture script:";
const SCRIPT: usize = 512 - MARK.len();

/// The bytes of a plugin file.
#[derive(Debug, Clone)]
pub struct Component(Vec<u8>);

impl Component {
    /// The fixture (`tests/fixtures`) with a script such as `version=2;greet=do trap`.
    pub fn fixture(script: &str) -> Self {
        assert!(script.len() <= SCRIPT, "the script is too long");
        let mut bytes = read("hotgate_fixtures.wasm");
        let at = find(&bytes, MARK).expect("the fixture has a place for a script") + MARK.len();
        bytes[at..at + script.len()].copy_from_slice(script.as_bytes());
        Self(bytes)
    }

    /// The fixture, with this version in its answers.
    pub fn version(number: u32) -> Self {
        Self::fixture(&format!("version={number}"))
    }

    /// The default authenticator.
    pub fn origin_auth() -> Self {
        Self(read("origin_auth.wasm"))
    }

    /// The default router.
    pub fn origin_router() -> Self {
        Self(read("origin_router.wasm"))
    }

    /// An authenticator that logs 9 MB two hundred times in `greet`, without a loop
    /// (`tests/fixtures/straight-line.wat`).
    pub fn straight_line() -> Self {
        Self(include_bytes!("../fixtures/straight-line.wasm").to_vec())
    }

    /// A component of another world: a command line program.
    pub fn command() -> Self {
        Self(read("command.wasm"))
    }

    /// Any bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_owned())
    }

    /// The same plugin with another digest: adds a custom section at the end.
    pub fn tagged(mut self, number: u32) -> Self {
        let name = b"tag";
        let content = number.to_le_bytes();
        let length = u8::try_from(1 + name.len() + content.len()).expect("a short section");
        self.0.extend([0, length, name.len() as u8]);
        self.0.extend(name.iter().chain(&content));
        self
    }

    /// The same plugin with one more module, which is never run: as many functions, of as many steps each, for the
    /// compiler to work on.
    pub fn with_code(mut self, functions: usize, steps: usize) -> Self {
        // The only local is the parameter. Each step is `x = x / x + 1`. It may trap, so no step can be optimised away.
        let step = [0x20, 0, 0x20, 0, 0x6e, 0x41, 1, 0x6a, 0x21, 0];
        let body = [&[0][..], &step.repeat(steps), &[0x20, 0, 0x0b]].concat();
        let bodies = [leb128(body.len()), body].concat().repeat(functions);
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        for (id, count, items) in [
            // One type, i32 to i32; functions of this type; their bodies.
            (1, 1, vec![0x60, 1, 0x7f, 1, 0x7f]),
            (3, functions, vec![0; functions]),
            (10, functions, bodies),
        ] {
            let content = [leb128(count), items].concat();
            module.extend([vec![id], leb128(content.len()), content].concat());
        }
        self.push_module(&module);
        self
    }

    /// The same plugin with as many more modules. Each module is empty and in a component of its own.
    pub fn with_modules(mut self, modules: usize) -> Self {
        let module = b"\x01\x08\0asm\x01\0\0\0";
        let component = [b"\0asm\x0d\0\x01\0", &module[..]].concat();
        self.0.extend([&[4, component.len() as u8], &component[..]].concat().repeat(modules));
        self
    }

    /// The same plugin with one more function, which is never called. It calls out of its own code `exits` times,
    /// without a loop.
    pub fn with_straight_function(mut self, exits: usize) -> Self {
        let grow = b"\x41\0\x40\0\x1a";
        let body = [b"\0", &grow.repeat(exits)[..], b"\x0b"].concat();
        let code = [b"\x01", &leb128(body.len())[..], &body].concat();
        let (types, functions, memory) = (b"\x01\x04\x01\x60\0\0", b"\x03\x02\x01\0", b"\x05\x03\x01\0\0");
        self.push_module(
            &[b"\0asm\x01\0\0\0", &types[..], functions, memory, b"\x0a", &leb128(code.len()), &code].concat(),
        );
        self
    }

    /// The same plugin with one more module, which is never instantiated. The module has `segments` element segments of
    /// `items` items each, with which code could fill tables.
    pub fn with_segments(mut self, segments: usize, items: usize) -> Self {
        let segment = [b"\x01\0", &leb128(items)[..], &vec![0; items]].concat();
        let elements = [leb128(segments), segment.repeat(segments)].concat();
        let (types, functions, code) = (b"\x01\x04\x01\x60\0\0", b"\x03\x02\x01\0", b"\x0a\x04\x01\x02\0\x0b");
        let before = [b"\0asm\x01\0\0\0", &types[..], functions, b"\x09"].concat();
        self.push_module(&[&before, &leb128(elements.len())[..], &elements, code].concat());
        self
    }

    /// The same plugin, whose instances contain `instances` more instances of one module with `globals` globals.
    pub fn with_instances(mut self, instances: usize, globals: usize) -> Self {
        let sections = self.sections();
        let module = leb128(sections.iter().filter(|id| **id == 1).count());
        let content = [leb128(globals), b"\x7f\0\x41\x01\x0b".repeat(globals)].concat();
        self.push_module(&[b"\0asm\x01\0\0\0\x06", &leb128(content.len())[..], &content].concat());
        let instance = [b"\0", &module[..], b"\0"].concat();
        let content = [leb128(instances), instance.repeat(instances)].concat();
        self.0.push(2);
        self.0.extend(leb128(content.len()));
        self.0.extend(content);
        self
    }

    fn push_module(&mut self, module: &[u8]) {
        self.0.push(1);
        self.0.extend(leb128(module.len()));
        self.0.extend(module);
    }

    /// The kinds of the component's sections, in their order.
    fn sections(&self) -> Vec<u8> {
        let (mut rest, mut kinds) = (&self.0[8..], Vec::new());
        while let [kind, after @ ..] = rest {
            let digits = after.iter().take_while(|byte| **byte >= 0x80).count() + 1;
            let length = after[..digits].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
            kinds.push(*kind);
            rest = &after[digits + length..];
        }
        kinds
    }

    /// The same plugin with one more module, which is never run: as many bytes of data, and a memory that holds them.
    pub fn with_data(mut self, bytes: usize) -> Self {
        let pages = leb128(bytes.div_ceil(1 << 16));
        let memory = [b"\x01\0", &pages[..]].concat();
        let noise = (0..bytes).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 16) as u8).collect();
        let data = [b"\x01\0\x41\0\x0b".to_vec(), leb128(bytes), noise].concat();
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        for (id, content) in [(5, memory), (11, data)] {
            module.extend([vec![id], leb128(content.len()), content].concat());
        }
        self.0.extend([vec![1], leb128(module.len()), module].concat());
        self
    }

    /// A small plugin of one core module. The module has these sections (number and content), and a function that does
    /// nothing, which is exported as `check`, `greet` and `authenticate`. `start` is the code of the start function.
    ///
    /// ```wat
    /// (component
    ///   (core module $m (func $f) (export "f" (func $f)) …)
    ///   (core instance $i (instantiate $m))
    ///   (type $t (func))
    ///   (func $g (type $t) (canon lift (core func $i "f")))
    ///   (instance $lifecycle (export "check" (func $g)))
    ///   (instance $authenticator (export "greet" (func $g)) (export "authenticate" (func $g)))
    ///   (export "hotgate:gateway/lifecycle@0.1.0" (instance $lifecycle))
    ///   (export "hotgate:gateway/authenticator@0.1.0" (instance $authenticator)))
    /// ```
    pub fn small(start: Option<&[u8]>, sections: &[(u8, &[u8])]) -> Self {
        let section = |id: u8, content: &[u8]| [&[id], &leb128(content.len())[..], content].concat();
        let name = |name: &str| [&leb128(name.len())[..], name.as_bytes()].concat();
        let bodies = [Some(&b"\x00\x0b"[..]), start].into_iter().flatten().collect::<Vec<_>>();
        let code = bodies.iter().flat_map(|body| [leb128(body.len()), body.to_vec()].concat()).collect();
        let count = bodies.len() as u8;
        let functions = [vec![count], vec![0; bodies.len()]].concat();
        let mut parts = vec![
            (1, b"\x01\x60\0\0".to_vec()),
            (3, functions),
            (7, [b"\x01".to_vec(), name("f"), b"\0\0".to_vec()].concat()),
            (10, [vec![count], code].concat()),
        ];
        parts.extend(start.map(|_| (8, b"\x01".to_vec())));
        parts.extend(sections.iter().map(|(id, content)| (*id, content.to_vec())));
        // Sections in the order that WebAssembly requires, custom sections (names) last.
        parts.sort_by_key(|(id, _)| if *id == 0 { u8::MAX } else { *id });
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.extend(parts.iter().flat_map(|(id, content)| section(*id, content)));
        let export = |text: &str, what: &[u8]| [b"\0".to_vec(), name(text), what.to_vec()].concat();
        let function = b"\x01\0";
        let instances = [
            b"\x02\x01\x01".to_vec(),
            export("check", function),
            b"\x01\x02".to_vec(),
            export("greet", function),
            export("authenticate", function),
        ];
        let exports = [
            b"\x02".to_vec(),
            export("hotgate:gateway/lifecycle@0.1.0", b"\x05\0\0"),
            export("hotgate:gateway/authenticator@0.1.0", b"\x05\x01\0"),
        ];
        let parts = [
            b"\0asm\x0d\0\x01\0".to_vec(),
            section(1, &module),
            section(2, b"\x01\0\0\0"),
            section(7, b"\x01\x40\0\x01\0"),
            section(6, &[b"\x01\0\0\x01\0".to_vec(), name("f")].concat()),
            section(8, b"\x01\0\0\0\0\0"),
            section(5, &instances.concat()),
            section(11, &exports.concat()),
        ];
        Self(parts.concat())
    }

    /// A small plugin that traps in its start function. The start function has this name.
    pub fn trap_named(name: &str) -> Self {
        let names = [b"\x01\x01".to_vec(), leb128(name.len()), name.into()].concat();
        let section = [b"\x04name\x01".to_vec(), leb128(names.len()), names].concat();
        Self::small(Some(b"\0\0\x0b"), &[(0, &section)])
    }

    /// The same plugin, built against another version of the contract, for example `0.1.9`.
    pub fn contract(mut self, version: &str) -> Self {
        let current = b"@0.1.0";
        let mut from = 0;
        while let Some(at) = find(&self.0[from..], b"hotgate:gateway/") {
            from += at + 1;
            let rest = &mut self.0[from..];
            if let Some(at) = find(&rest[..40.min(rest.len())], current) {
                rest[at + 1..at + current.len()].copy_from_slice(version.as_bytes());
            }
        }
        self
    }

    /// The first `length` bytes.
    pub fn truncated(&self, length: usize) -> Self {
        Self(self.0[..length].to_owned())
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A plugin file that a gateway watches.
#[derive(Debug, Clone)]
pub struct PluginFile(PathBuf);

impl PluginFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the file as `cp` does: empties the file, then writes it.
    pub fn copy_over(&self, component: &Component) {
        std::fs::write(&self.0, component.bytes()).expect("a writable folder");
    }

    /// Replaces the file as `mv` does: gives its name to another file.
    pub fn move_over(&self, component: &Component) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = self.0.with_extension(format!("new{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&next, component.bytes()).expect("a writable folder");
        std::fs::rename(&next, &self.0).expect("a writable folder");
    }

    /// Deletes the file.
    pub fn delete(&self) {
        std::fs::remove_file(&self.0).expect("a file");
    }
}

fn read(name: &str) -> Vec<u8> {
    let path = build::component(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A number in LEB128, the encoding of WebAssembly.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
