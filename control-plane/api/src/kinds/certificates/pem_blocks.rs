//! PEM blocks of a text as Go's `encoding/pem` finds them: what is between blocks, and blocks that are malformed, are passed over.

/// The well-formed blocks of a text, in order.
pub fn blocks(text: &str) -> impl Iterator<Item = pem::Pem> {
    const BEGIN: &str = "-----BEGIN ";
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(start, _)| start).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]).collect::<Vec<_>>();
    starts.into_iter().zip(ends).filter_map(|(start, end)| pem::parse(&text[start..end]).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_block_is_passed_over() {
        let text = "a comment\n-----BEGIN A-----\n!\n-----END A-----\n-----BEGIN B-----\nAA==\n-----END B-----\nmore\n";
        let found: Vec<_> = blocks(text).map(|block| (block.tag().to_owned(), block.contents().to_vec())).collect();
        assert_eq!(found, [("B".to_owned(), vec![0])]);
    }
}
