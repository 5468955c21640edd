//! Text for the pages that commands write.

/// A text in HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(escaped("<b class=\"x\">&amp;"), "&lt;b class=&quot;x&quot;&gt;&amp;amp;");
    }
}
