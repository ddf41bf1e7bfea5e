/**
 * The syntax tree @huggingface/jinja's parser gives, as far as it is read here. The package exports the parser but not
 * the node classes, so they are described by shape; `type` tells them apart.
 */
export type Node =
  | { readonly type: 'Program'; readonly body: readonly Node[] }
  | { readonly type: 'Comment' }
  | { readonly type: 'Break' }
  | { readonly type: 'Continue' }
  | IfNode
  | ForNode
  | SetNode
  | MacroNode
  | CallStatementNode
  | { readonly type: 'FilterStatement'; readonly filter: FilterNode['filter']; readonly body: readonly Node[] }
  | { readonly type: 'IntegerLiteral' | 'FloatLiteral'; readonly value: number }
  | { readonly type: 'StringLiteral'; readonly value: string }
  | { readonly type: 'ArrayLiteral'; readonly value: readonly Node[] }
  | TupleNode
  | { readonly type: 'ObjectLiteral'; readonly value: ReadonlyMap<Node, Node> }
  | IdentifierNode
  | CallNode
  | MemberNode
  | { readonly type: 'UnaryExpression'; readonly operator: Operator; readonly argument: Node }
  | { readonly type: 'BinaryExpression'; readonly operator: Operator; readonly left: Node; readonly right: Node }
  | FilterNode
  | { readonly type: 'TestExpression'; readonly operand: Node; readonly negate: boolean; readonly test: IdentifierNode }
  | { readonly type: 'SelectExpression'; readonly lhs: Node; readonly test: Node }
  | { readonly type: 'Ternary'; readonly condition: Node; readonly trueExpr: Node; readonly falseExpr: Node }
  | SliceNode
  | KeywordNode
  | { readonly type: 'SpreadExpression' | 'KeywordSpreadExpression'; readonly argument: Node };

export interface Operator {
  readonly value: string;
}

export interface IfNode {
  readonly type: 'If';
  readonly test: Node;
  readonly body: readonly Node[];
  readonly alternate: readonly Node[];
}

export interface ForNode {
  readonly type: 'For';
  readonly loopvar: IdentifierNode | TupleNode;
  readonly iterable: Node;
  readonly body: readonly Node[];
  readonly defaultBlock: readonly Node[];
}

export interface SetNode {
  readonly type: 'Set';
  readonly assignee: Node;
  readonly value: Node | null;
  readonly body: readonly Node[];
}

export interface MacroNode {
  readonly type: 'Macro';
  readonly name: IdentifierNode;
  readonly args: readonly (IdentifierNode | KeywordNode)[];
  readonly body: readonly Node[];
}

export interface CallStatementNode {
  readonly type: 'CallStatement';
  readonly call: CallNode;
  readonly callerArgs: readonly (IdentifierNode | KeywordNode)[] | null;
  readonly body: readonly Node[];
}

export interface TupleNode {
  readonly type: 'TupleLiteral';
  readonly value: readonly Node[];
}

export interface IdentifierNode {
  readonly type: 'Identifier';
  readonly value: string;
}

export interface CallNode {
  readonly type: 'CallExpression';
  readonly callee: Node;
  readonly args: readonly Node[];
}

export interface MemberNode {
  readonly type: 'MemberExpression';
  readonly object: Node;
  readonly property: Node;
  readonly computed: boolean;
}

export interface FilterNode {
  readonly type: 'FilterExpression';
  readonly operand: Node;
  readonly filter: IdentifierNode | CallNode;
}

export interface SliceNode {
  readonly type: 'SliceExpression';
  readonly start?: Node;
  readonly stop?: Node;
  readonly step?: Node;
}

export interface KeywordNode {
  readonly type: 'KeywordArgumentExpression';
  readonly key: IdentifierNode;
  readonly value: Node;
}
