//! The URLs of objects.

use std::path::Path;

/// The URL of an object, or of all objects below a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Url {
    /// Scheme and bucket, container or host: `s3://bucket`.
    root: String,
    /// Everything after the root, without slashes at its ends. In `https` URLs it is percent-encoded, in all others it is literal.
    key: String,
    /// Whether it ended with a slash, and therefore names a prefix.
    folder: bool,
}

/// The scheme of a URL, in lower case.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let valid = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (named && valid).then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Whether an argument is a URL, of any scheme, and not a path.
pub(in super::super) fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| scheme(text).is_some())
}

impl Url {
    /// # Errors
    /// A phrase without the URL that says what is wrong with it.
    pub(in super::super) fn parse(path: &Path) -> Result<Self, String> {
        let text = path.to_str().ok_or("is not a URL, because it is not UTF-8")?;
        let (scheme, rest) = scheme(text).ok_or("is not a URL")?;
        if !matches!(&*scheme, "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" | "http" | "https") {
            return Err(format!("`{scheme}` is not a supported scheme; expected s3, gs, az, abfss, https or http"));
        }
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err("names no bucket, container or host".into());
        }
        let url = Self {
            root: format!("{scheme}://{host}"),
            key: key.trim_matches('/').to_owned(),
            folder: key.is_empty() || key.ends_with('/'),
        };
        if url.is_web() && key.contains(['?', '#']) {
            return Err("has a query or a fragment, which is not supported; download the photo first".into());
        }
        if url.key.split('/').any(|part| matches!(part, "." | "..") || part.is_empty() && !url.key.is_empty()) {
            return Err("has an empty, `.` or `..` part in its key, which is not supported".into());
        }
        Ok(url)
    }

    /// Scheme and bucket, container or host.
    pub(in super::super) fn root(&self) -> &str {
        &self.root
    }

    /// The key of the object, or the prefix.
    pub(in super::super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is on a web server, which cannot list or store objects.
    pub(in super::super) fn is_web(&self) -> bool {
        self.root.starts_with("http")
    }

    /// Whether it names all objects below a prefix. A URL names a single object if it is on a web server or has the extension of a file to
    /// read; asking the store would cost a request.
    pub(in super::super) fn is_prefix(&self, is_file: impl FnOnce(&Path) -> bool) -> bool {
        self.folder || !(self.is_web() || is_file(Path::new(&self.key)))
    }

    /// The last part of the key.
    pub(in super::super) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// Whether an object of this store is below this prefix.
    pub(in super::super) fn holds(&self, root: &str, key: &str) -> bool {
        self.root == root && (self.key.is_empty() || self.below(key).is_some())
    }

    /// The part of a key that follows this prefix.
    pub(in super::super) fn below<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.key.is_empty() { Some(key) } else { key.strip_prefix(&*self.key)?.strip_prefix('/') }
    }

    /// The key of an object below this prefix.
    pub(in super::super) fn join(&self, below: &str) -> String {
        if self.key.is_empty() { below.to_owned() } else { format!("{}/{below}", self.key) }
    }
}

/// As it was written, without a slash at the end.
impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, "/{}", self.key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_store_and_key() {
        let cases = [
            ("s3://bucket", "s3://bucket", "", true),
            ("s3://bucket/", "s3://bucket", "", true),
            ("S3://bucket/a b/c#1?.png", "s3://bucket", "a b/c#1?.png", false), // keys are literal
            ("gs://bucket/a/", "gs://bucket", "a", true),
            ("gs://bucket/a", "gs://bucket", "a", true), // without the extension of a photo
            (
                "abfss://box@account.dfs.core.windows.net/a.jpg",
                "abfss://box@account.dfs.core.windows.net",
                "a.jpg",
                false,
            ),
            ("https://host:81/a%20b", "https://host:81", "a%20b", false), // a web server cannot list
            ("https://host/a.jpg/", "https://host", "a.jpg", true),
        ];
        for (text, root, key, prefix) in cases {
            let url = Url::parse(Path::new(text)).unwrap();
            let is_prefix = url.is_prefix(|path| path.extension().is_some());
            assert_eq!((url.root(), url.key(), is_prefix), (root, key, prefix), "{text}");
        }
        let wrong =
            ["ftp://host/a", "s3:///key", "https://host/a?b", "s3://bucket/a//b", "s3://bucket/../a", "s3://b/a/./c"];
        for text in wrong {
            Url::parse(Path::new(text)).unwrap_err();
        }
        for path in ["a.png", "/a/b", "s3:/a", "://a", "C:\\a", "1://a", "a b://c"] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_prefix_holds_what_is_below_it() {
        let url = |text: &str| Url::parse(Path::new(text)).unwrap();
        let prefix = url("s3://b/out/");
        assert!(prefix.holds("s3://b", "out/a.png") && !prefix.holds("s3://b", "outer/a.png"));
        assert!(!prefix.holds("s3://c", "out/a.png") && url("s3://b").holds("s3://b", "a.png"));
        assert_eq!((prefix.below("out/x/a.png"), prefix.join("x/a.png")), (Some("x/a.png"), "out/x/a.png".into()));
        assert_eq!((prefix.to_string(), prefix.name()), ("s3://b/out".into(), "out"));
    }
}
