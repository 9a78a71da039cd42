//! Rust types and traits of the interfaces in wit/.

wit_bindgen::generate!({ path: "wit", world: "{{world}}" });
