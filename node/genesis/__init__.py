"""What peers agree on before a run: identities, proposals, the genesis, and every member's approval of it."""
