/** What is known of one block in a sequence's table: a record made on demand, for inspection and tests. */
export interface KvBlock {
  readonly blockId: number;
  /** Logical position in the table. */
  readonly blockIndex: number;
  /** Tokens of it whose KV is there. */
  readonly numTokens: number;
  /** A full block never changes again, whoever holds it; only full blocks are shared. */
  readonly isFull: boolean;
  readonly references: number;
}
