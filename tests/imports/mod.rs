//! Finds which files of a crate import which others.
//!
//! An import is any use of another file's item by a path, in a `use` or in the code: `crate::`, `self::`, `super::`, the crate's own name,
//! a module that the file declares, or a name that it imported. The imported file is the one that defines the item, not those that
//! re-export it: `super::X` imports from a sibling if the parent has `pub use sibling::X`. Tests (`#[cfg(test)]`), comments and strings do
//! not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The names from the crate's root to a module; empty for the root.
type Names = Vec<String>;

/// How many re-exports to follow before a name counts as unknown.
const HOPS: usize = 16;

/// A crate's modules by name.
pub(crate) struct Crate {
    name: String,
    modules: BTreeMap<Names, Module>,
}

/// A file, or a module inside one.
#[derive(Default)]
struct Module {
    file: String,
    /// The paths that `use` imports, as written, by their local name.
    imported: BTreeMap<String, Names>,
    /// `use path::*`.
    globs: Vec<Names>,
    /// The names defined here. (Including those in functions and `impl` blocks, which is harmless.)
    defined: BTreeSet<String>,
    /// Every path in the code, as written.
    named: Vec<Names>,
}

/// Importing file, imported file, and the imported names.
pub(crate) type Imports = BTreeMap<(String, String), BTreeSet<String>>;

impl Crate {
    /// Reads the crate `name` in `folder`: `lib.rs`, `main.rs` or both, and every module that they declare.
    pub(crate) fn read(folder: &Path, name: &str) -> Self {
        let mut all = Self { name: name.into(), modules: BTreeMap::new() };
        for root in ["main.rs", "lib.rs"].iter().filter(|root| folder.join(root).exists()) {
            all.read_file(folder, root, &[]);
        }
        all
    }

    fn read_file(&mut self, folder: &Path, file: &str, at: &[String]) {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
        self.modules.entry(at.to_vec()).or_default().file = file.into();
        self.read_tokens(folder, tokens, at);
    }

    fn read_tokens(&mut self, folder: &Path, tokens: TokenStream, at: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut i = 0;
        while i < tokens.len() {
            let rest = &tokens[i..];
            i += match rest {
                // Attributes, including documentation.
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
                    if hash.as_char() == '#' && attribute.delimiter() == Delimiter::Bracket =>
                {
                    let is_test = attribute.stream().to_string().replace(' ', "") == "cfg(test)";
                    2 + if is_test { item_len(&rest[2..]) } else { 0 }
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end), ..]
                    if word == "mod" && end.as_char() == ';' =>
                {
                    let child = [at, &[name.to_string()]].concat();
                    let [plain, folded] = [".rs", "/mod.rs"].map(|end| child.join("/") + end);
                    let file = if folder.join(&plain).exists() { plain } else { folded };
                    self.read_file(folder, &file, &child);
                    3
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..] if word == "mod" => {
                    let child = [at, &[name.to_string()]].concat();
                    let file = self.modules[at].file.clone();
                    self.modules.entry(child.clone()).or_default().file = file;
                    self.read_tokens(folder, body.stream(), &child);
                    3
                }
                [TokenTree::Ident(word), TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Group(_), ..]
                    if word == "use" && !is_punct(rest.get(1), '<') =>
                {
                    let len = rest.iter().position(|token| is_punct(Some(token), ';')).unwrap_or(rest.len());
                    let module = self.modules.entry(at.to_vec()).or_default();
                    module.read_use(&rest[1..len], &[]);
                    len
                }
                // `pub(in path)` imports nothing.
                [TokenTree::Ident(word), TokenTree::Group(to), ..]
                    if word == "pub" && to.delimiter() == Delimiter::Parenthesis =>
                {
                    2
                }
                // Except for `const fn`.
                [TokenTree::Ident(word), TokenTree::Ident(name), ..]
                    if defines(&word.to_string()) && !defines(&name.to_string()) =>
                {
                    self.modules.entry(at.to_vec()).or_default().defined.insert(name.to_string());
                    2
                }
                [TokenTree::Ident(_), ..] => {
                    let (path, len) = path(rest);
                    if path.len() > 1 {
                        self.modules.entry(at.to_vec()).or_default().named.push(path);
                    }
                    len
                }
                [TokenTree::Group(group), ..] => {
                    self.read_tokens(folder, group.stream(), at);
                    1
                }
                _ => 1,
            };
        }
    }

    /// A path in module `at`, resolved from the crate's root; `None` if it leads to another crate.
    fn absolute(&self, written: &[String], at: &[String], hops: usize) -> Option<Names> {
        let (first, rest) = written.split_first()?;
        let from = |module: &[String]| Some([module, rest].concat());
        let child = [at, std::slice::from_ref(first)].concat();
        match first.as_str() {
            "crate" => from(&[]),
            name if name == self.name => from(&[]),
            "self" => from(at),
            "super" => {
                let (_, parent) = at.split_last()?;
                if rest.first().is_some_and(|next| next == "super") {
                    self.absolute(rest, parent, hops)
                } else {
                    from(parent)
                }
            }
            _ if self.modules.contains_key(&child) => from(&child),
            name => {
                let imported = self.modules[at].imported.get(name)?;
                from(&self.absolute(imported, at, hops.checked_sub(1)?)?)
            }
        }
    }

    /// The module that defines the item at an absolute path.
    fn home(&self, path: &[String], hops: usize) -> Names {
        let mut at = Names::new();
        for (i, name) in path.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let (module, rest) = (&self.modules[&at], &path[i + 1..]);
            let Some(hops) = hops.checked_sub(1) else { return at };
            let passed_on = |written: &[String]| Some([&self.absolute(written, &at, hops)?, rest].concat());
            if let Some(path) = module.imported.get(name).and_then(|written| passed_on(written)) {
                return self.home(&path, hops);
            }
            if !module.defined.contains(name) {
                for glob in module.globs.iter().filter_map(|glob| self.absolute(glob, &at, hops)) {
                    let source = self.home(&glob, hops);
                    let knows = |module: &Module| module.defined.contains(name) || module.imported.contains_key(name);
                    if source != at && knows(&self.modules[&source]) {
                        return self.home(&[&source[..], std::slice::from_ref(name), rest].concat(), hops);
                    }
                }
            }
            return at;
        }
        at
    }

    /// All imports between files.
    pub(crate) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (at, module) in &self.modules {
            for written in module.named.iter().chain(&module.globs) {
                let Some(path) = self.absolute(written, at, HOPS) else { continue };
                let to = &self.modules[&self.home(&path, HOPS)].file;
                if *to != module.file {
                    let names = imports.entry((module.file.clone(), to.clone())).or_default();
                    names.insert(path.last().cloned().unwrap_or_default());
                }
            }
        }
        imports
    }

    /// Files that import each other in a cycle: each cycle's files, and a description of the imports.
    ///
    /// A folder's `mod.rs` uses the files below it, and they use what it defines: that alone is not a cycle. So cycles are searched twice,
    /// once without the imports from below, and once without those from above.
    pub(crate) fn cycles(&self) -> BTreeMap<Vec<String>, String> {
        let imports = self.imports();
        let above = |a: &str, b: &str| module_of(b).starts_with(&module_of(a));
        let without = |hidden: &dyn Fn(&str, &str) -> bool| {
            let seen = imports.iter().filter(|((from, to), _)| !hidden(from, to));
            circles(&seen.collect())
        };
        let (from_below, from_above) = (without(&|from, to| above(to, from)), without(&|from, to| above(from, to)));
        from_below.into_iter().chain(from_above).collect()
    }
}

/// The names of the module in a file.
fn module_of(file: &str) -> Names {
    let plain = file.strip_suffix(".rs").unwrap_or(file);
    let names = plain.split('/').filter(|name| !matches!(*name, "mod" | "lib" | "main"));
    names.map(str::to_owned).collect()
}

fn circles(imports: &BTreeMap<&(String, String), &BTreeSet<String>>) -> BTreeMap<Vec<String>, String> {
    let reached = |from: &str| -> BTreeSet<String> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = next.pop() {
            for (_, to) in imports.keys().filter(|(from, _)| *from == file) {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let files: BTreeSet<_> = imports.keys().map(|(from, _)| from.clone()).collect();
    let reached: BTreeMap<_, _> = files.iter().map(|file| (file, reached(file))).collect();
    let mut found = BTreeMap::new();
    for file in files.iter().filter(|file| reached[file].contains(*file)) {
        let back = |other: &&String| reached.get(other).is_some_and(|all| all.contains(file));
        let circle: Vec<String> = reached[file].iter().filter(back).cloned().collect();
        let ties = imports.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
        let words = ties.map(|((from, to), names)| {
            format!("\n  {from} -> {to}: {}", names.iter().cloned().collect::<Vec<_>>().join(", "))
        });
        found.insert(circle.clone(), words.collect());
    }
    found
}

impl Module {
    /// Reads the tree of a `use`, without the keyword and the semicolon.
    fn read_use(&mut self, tree: &[TokenTree], ahead: &[String]) {
        let (mut path, mut rest) = (ahead.to_vec(), tree);
        loop {
            rest = match rest {
                [TokenTree::Punct(colon), rest @ ..] if colon.as_char() == ':' => rest,
                [TokenTree::Ident(word), TokenTree::Ident(alias), ..] if word == "as" => {
                    return self.import(&path, &alias.to_string());
                }
                [TokenTree::Ident(name), rest @ ..] => {
                    path.push(name.to_string());
                    rest
                }
                [TokenTree::Punct(star), ..] if star.as_char() == '*' => return self.globs.push(path),
                [TokenTree::Group(group), ..] => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    inner.split(|token| is_punct(Some(token), ',')).for_each(|tree| self.read_use(tree, &path));
                    return;
                }
                [] if path == ahead => return,
                _ => break,
            };
        }
        let alias = path.iter().rev().find(|name| *name != "self").cloned().unwrap_or_default();
        self.import(&path, &alias);
    }

    fn import(&mut self, path: &[String], alias: &str) {
        // `use path::{self}` is `use path`.
        let path = if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            &path[..path.len() - 1]
        } else {
            path
        };
        self.named.push(path.to_vec());
        if alias != "_" {
            self.imported.insert(alias.to_owned(), path.to_vec());
        }
    }
}

/// Whether the word precedes a name that it defines.
fn defines(word: &str) -> bool {
    matches!(word, "const" | "enum" | "fn" | "static" | "struct" | "trait" | "type" | "union")
}

fn is_punct(token: Option<&TokenTree>, want: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == want)
}

/// The path that begins here, and its number of tokens.
fn path(tokens: &[TokenTree]) -> (Names, usize) {
    let (mut path, mut len) = (Names::new(), 0);
    while let Some(TokenTree::Ident(name)) = tokens.get(len) {
        path.push(name.to_string());
        len += 1;
        let goes_on = is_punct(tokens.get(len), ':') && is_punct(tokens.get(len + 1), ':');
        if !goes_on || !matches!(tokens.get(len + 2), Some(TokenTree::Ident(_))) {
            break;
        }
        len += 2;
    }
    (path, len)
}

/// The number of tokens of the item that begins here: it ends with a semicolon or a body.
fn item_len(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(Some(token), ';'),
    };
    tokens.iter().position(ends).map_or(tokens.len(), |at| at + 1)
}
