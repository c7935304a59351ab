//! What a proxied answer says of its own server's paths, as the client has to say it: behind the proxy's path. Pure.
//!
//! Upstream: k8s.io/apimachinery/pkg/util/proxy/transport.go.

use std::borrow::Cow;

/// A tag that is longer than this is passed on as it is.
const TAG: usize = 64 * 1024;

/// Attributes that hold a URL, by tag.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// What stands between the client's paths and the server's.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    /// The path of the proxy.
    pub path: String,
    /// host:port of the server behind it.
    pub server: String,
    /// host:port that the client asked.
    pub host: String,
}

impl Prefix {
    /// A URL of the server, as the client reaches it; `None` when it is good as it is: relative, or somebody else's.
    pub(super) fn url(&self, url: &str) -> Option<String> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest))
                if !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) =>
            {
                (Some(scheme), rest)
            }
            _ => (None, url.strip_prefix("//").unwrap_or(url)),
        };
        let has_authority = scheme.is_some() || url.starts_with("//");
        let (authority, path) = match rest.find(['/', '?', '#']) {
            _ if !has_authority => ("", rest),
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if !path.starts_with('/') || !(authority.is_empty() || authority == self.server || authority == self.host) {
            return None;
        }
        // A URL that names the host which the client asked keeps it.
        let kept = if authority == self.host && !authority.is_empty() { &url[..url.len() - path.len()] } else { "" };
        let prefix = self.path.trim_end_matches('/');
        if path.starts_with(&self.path) {
            return (kept.len() + path.len() != url.len()).then(|| format!("{kept}{path}"));
        }
        Some(format!("{kept}{prefix}{path}"))
    }

    /// A start tag (from `<` to `>`), with its URLs rewritten.
    fn tag<'a>(&self, tag: &'a str) -> Cow<'a, str> {
        let name_end =
            tag[1..].find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).map_or(tag.len(), |at| at + 1);
        let name = tag[1..name_end].to_ascii_lowercase();
        let Ok(at) = ATTRIBUTES.binary_search_by(|(tag, _)| (*tag).cmp(&name)) else { return Cow::Borrowed(tag) };
        let mut out = String::new();
        let mut copied = 0;
        for attribute in (Attributes { tag, at: name_end }) {
            let is_url = ATTRIBUTES[at].1.iter().any(|wanted| attribute.name.eq_ignore_ascii_case(wanted));
            if let Some(url) = is_url.then(|| self.url(&unescape(attribute.value))).flatten() {
                out.push_str(&tag[copied..attribute.start]);
                out.push('"');
                out.push_str(&escape(&url));
                out.push('"');
                copied = attribute.end;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(tag);
        }
        out.push_str(&tag[copied..]);
        Cow::Owned(out)
    }
}

/// An attribute with a value; `start..end` is the value with its quotes.
struct Attribute<'a> {
    name: &'a str,
    value: &'a str,
    start: usize,
    end: usize,
}

struct Attributes<'a> {
    tag: &'a str,
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let tag = self.tag;
        let bytes = tag.as_bytes();
        let skip =
            |from: usize, stop: fn(u8) -> bool| (from..bytes.len()).find(|at| stop(bytes[*at])).unwrap_or(bytes.len());
        loop {
            let name_start = skip(self.at, |byte| !byte.is_ascii_whitespace() && byte != b'/');
            if name_start >= bytes.len() || bytes[name_start] == b'>' {
                return None;
            }
            let name_end =
                skip(name_start + 1, |byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/'));
            let equals = skip(name_end, |byte| !byte.is_ascii_whitespace());
            if bytes.get(equals) != Some(&b'=') {
                self.at = name_end;
                continue;
            }
            let start = skip(equals + 1, |byte| !byte.is_ascii_whitespace());
            let (value, end) = match bytes.get(start) {
                Some(quote @ (b'"' | b'\'')) => {
                    let close = (start + 1..bytes.len()).find(|at| bytes[*at] == *quote)?;
                    (&tag[start + 1..close], close + 1)
                }
                _ => {
                    let end = skip(start, |byte| byte.is_ascii_whitespace() || byte == b'>');
                    (&tag[start..end], end)
                }
            };
            self.at = end;
            return Some(Attribute { name: &tag[name_start..name_end], value, start, end });
        }
    }
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    Cow::Owned(plain.iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain)))
}

fn escape(text: &str) -> String {
    let escaped = [("&", "&amp;"), ("'", "&#39;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;")];
    escaped.iter().fold(text.to_owned(), |text, (plain, escaped)| text.replace(plain, escaped))
}

/// Rewrites HTML as it comes, holding back no more than an unfinished tag.
pub(super) struct Html {
    prefix: Prefix,
    held: Vec<u8>,
    /// Inside of an element whose content is text (`script`, `style`): its closing tag.
    raw: Option<&'static str>,
}

/// Elements whose content is no markup, with what ends them.
const RAW: &[(&str, &str)] =
    &[("script", "</script"), ("style", "</style"), ("textarea", "</textarea"), ("title", "</title"), ("xmp", "</xmp")];

impl Html {
    pub(super) fn new(prefix: Prefix) -> Self {
        Self { prefix, held: Vec::new(), raw: None }
    }

    /// Takes a piece, and gives what is certain by now.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let mut out = Vec::with_capacity(self.held.len() + 64);
        let mut at = 0;
        while let Some(length) = self.step(at, &mut out) {
            at += length;
        }
        self.held.drain(..at);
        out
    }

    /// What is left at the end.
    pub(super) fn finish(self) -> Vec<u8> {
        self.held
    }

    /// Handles one run of text, comment or tag at a place; `None` when more has to come first.
    fn step(&mut self, at: usize, out: &mut Vec<u8>) -> Option<usize> {
        let rest = &self.held[at..];
        if rest.is_empty() {
            return None;
        }
        let take = |length: usize, out: &mut Vec<u8>| {
            out.extend_from_slice(&rest[..length]);
            Some(length)
        };
        if let Some(end) = self.raw {
            return match find(rest, end.as_bytes()) {
                Some(0) => {
                    self.raw = None;
                    take(end.len(), out)
                }
                Some(length) => take(length, out),
                // The end may be cut in two.
                None if rest.len() >= end.len() => take(rest.len() - end.len() + 1, out),
                None => None,
            };
        }
        if rest[0] != b'<' {
            return take(rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len()), out);
        }
        let too_long = rest.len() > TAG;
        if rest.len() < 4 && rest.get(1).is_none_or(|byte| *byte == b'!') {
            return None;
        }
        if rest.starts_with(b"<!--") {
            return match find(&rest[4..], b"-->") {
                Some(end) => take(4 + end + 3, out),
                None if too_long => take(rest.len() - 2, out),
                None => None,
            };
        }
        if !rest[1].is_ascii_alphabetic() {
            return take(1, out);
        }
        let Some(length) = tag_length(rest) else { return if too_long { take(1, out) } else { None } };
        let Ok(tag) = std::str::from_utf8(&rest[..length]) else { return take(length, out) };
        let raw = RAW.iter().find(|(name, _)| {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/');
            tag.len() > name.len() + 1
                && tag.as_bytes()[1..=name.len()].eq_ignore_ascii_case(name.as_bytes())
                && ends(&tag.as_bytes()[name.len() + 1])
        });
        out.extend_from_slice(self.prefix.tag(tag).as_bytes());
        self.raw = raw.map(|(_, end)| *end);
        Some(length)
    }
}

/// The length of the tag that a text begins with: up to the first `>` outside of quotes.
fn tag_length(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Where a text begins in another, whatever its case.
fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix {
            path: "/api/v1/namespaces/a/pods/b/proxy".into(),
            server: "10.0.0.1:80".into(),
            host: "api:6443".into(),
        }
    }

    #[test]
    fn urls_of_the_server_get_the_proxys_path() {
        let cases = [
            ("/x", Some("/api/v1/namespaces/a/pods/b/proxy/x")),
            ("/x/?a=b#c", Some("/api/v1/namespaces/a/pods/b/proxy/x/?a=b#c")),
            ("http://10.0.0.1:80/x", Some("/api/v1/namespaces/a/pods/b/proxy/x")),
            ("https://api:6443/x", Some("https://api:6443/api/v1/namespaces/a/pods/b/proxy/x")),
            ("/api/v1/namespaces/a/pods/b/proxy/x", None),
            ("http://example.com/x", None),
            ("//example.com/x", None),
            ("x", None),
            ("?q=/x", None),
            ("#f", None),
            ("", None),
            ("mailto:a@b", None),
        ];
        for (url, expected) in cases {
            assert_eq!(prefix().url(url).as_deref(), expected, "{url}");
        }
    }

    fn rewritten(text: &str, piece: usize) -> String {
        let mut html = Html::new(prefix());
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            out.extend(html.push(piece));
        }
        out.extend(html.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn links_in_pages_are_rewritten_however_the_page_comes() {
        let page = "<!-- <a href=\"/no\"> --><p class=x>1 < 2<A HREF='/x?a=1&amp;b=2'>t</a><img alt=\">\" src=/i/><script src=\"/s\">if (a<b) \"<a href='/no'>\"</SCRIPT><a href=rel>é</a><";
        let expected = "<!-- <a href=\"/no\"> --><p class=x>1 < 2<A HREF=\"/P/x?a=1&amp;b=2\">t</a><img alt=\">\" src=\"/P/i/\"><script src=\"/P/s\">if (a<b) \"<a href='/no'>\"</SCRIPT><a href=rel>é</a><";
        let expected = expected.replace("/P/", "/api/v1/namespaces/a/pods/b/proxy/");
        for piece in [1, 2, 7, 1000] {
            assert_eq!(rewritten(page, piece), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_page_is_a_panic_and_nothing_but_urls_changes(text in "[<>!a-b/\"'= \\-é&;]{0,80}", piece in 1_usize..9) {
            proptest::prop_assert_eq!(rewritten(&text, piece), rewritten(&text, 1000));
        }
    }
}
