/**
 * Reads TypeScript with the compiler's own scanner, so that the contents of comments and strings are not taken for
 * code.
 */
import { createScanner } from 'typescript/unstable/ast/scanner'

/** A token of a program. Comments and white space are left out. */
export interface Token {
  readonly kind: 'word' | 'string' | 'template' | 'other'
  /** The token as it is written; for a string, its value. */
  readonly text: string
}

/** A slash divides after an `operand` that is not `beforeOperand`; else it begins a regular expression. */
const operand = /^(?:[\w$#]+|[)\]}]|\+\+|--)$/
const beforeOperand = /^(?:return|typeof|case|in|of|do|else|void|delete|throw|new|await|yield|instanceof)$/

/** Returns all tokens of a program, in order. */
export function tokensOf(source: string): Token[] {
  const scanner = createScanner(true, undefined, source)
  const tokens: Token[] = []
  /** For each open template: the number of open braces in its present expression. */
  const templates: number[] = []
  for (scanner.scan(); scanner.getTokenStart() < source.length; scanner.scan()) {
    const before = tokens.at(-1)
    const text = scanner.getTokenText()
    if (text === '/' || text === '/=') {
      const divides = before?.kind !== 'other' ? before?.kind !== undefined : operand.test(before.text)
      if (!divides || beforeOperand.test(before?.text ?? '')) scanner.reScanSlashToken()
    } else if (text === '{' && templates.length > 0) {
      templates.push((templates.pop() ?? 0) + 1)
    } else if (text === '}' && templates.length > 0) {
      const open = templates.pop() ?? 0
      if (open > 0) templates.push(open - 1)
      else if (scanner.reScanTemplateToken(false) !== undefined && scanner.getTokenText().endsWith('${'))
        templates.push(0)
    } else if (text.startsWith('`') && text.endsWith('${')) {
      templates.push(0)
    }
    tokens.push(tokenOf(scanner.getTokenText(), scanner.getTokenValue()))
  }
  return tokens
}

function tokenOf(text: string, value: string): Token {
  if (/^['"]/.test(text)) return { kind: 'string', text: value }
  if (text.startsWith('`')) return { kind: text.endsWith('`') ? 'string' : 'template', text: value }
  if (/^\}[\s\S]*(?:`|\$\{)$/.test(text)) return { kind: 'template', text: value }
  return { kind: /^[\w$#]/.test(text) ? 'word' : 'other', text }
}

/** Returns the code alone, on one line. Strings are empty, and the texts of templates are left out. */
export function codeOf(source: string): string {
  return tokensOf(source)
    .map(({ kind, text }) => (kind === 'string' ? "''" : kind === 'template' ? '+' : text))
    .join(' ')
    .replaceAll(/ ?(\?\.|[.,()[\]]) ?/g, '$1')
}

/** A module that a program imports, in whichever way. */
export interface Import {
  readonly target: string
  readonly typeOnly: boolean
}

/** Stands for a module whose name is known only when the program runs. */
export const computed = 'a module whose name is computed'

/**
 * Returns everything that a program imports, or exports from elsewhere. An import by a call counts as running the
 * module, unless the code uses it as a type.
 */
export function importsIn(source: string): Import[] {
  const tokens = tokensOf(source)
  return tokens.flatMap(({ kind, text }, at) => {
    if (kind !== 'word' || isProperty(tokens, at)) return []
    if (text === 'import' && tokens[at + 1]?.text === '(') return [called(tokens, at)]
    if (text === 'import' || text === 'export') return declared(tokens, at)
    return []
  })
}

function called(tokens: readonly Token[], at: number): Import {
  const [name, end] = [tokens[at + 2], tokens[at + 3]]
  const isName = name?.kind === 'string' && (end?.text === ')' || end?.text === ',')
  const [type, , equals] = tokens.slice(at - 3, at)
  const aliased = at >= 3 && type?.text === 'type' && equals?.text === '='
  return {
    target: isName ? name.text : computed,
    typeOnly: aliased || tokens[at - 1]?.text === 'typeof',
  }
}

/** Reads a declaration. It ends with the name of its module, after `from` or at once; an `export` may have none. */
function declared(tokens: readonly Token[], at: number): Import[] {
  const next = tokens[at + 1]
  if (next?.kind === 'string')
    return tokens[at]?.text === 'import' ? [{ target: next.text, typeOnly: false }] : []
  if (declaring.test(next?.text ?? '')) return []
  const typeOnly = next?.text === 'type' && !/^(?:from|,)$/.test(tokens[at + 2]?.text ?? '')
  for (let place = at + 1 + Number(typeOnly); place < tokens.length; place += 1) {
    const token = tokens[place]
    const name = tokens[place + 1]
    if (token?.text === 'from' && name?.kind === 'string') return [{ target: name.text, typeOnly }]
    const isClause = token?.kind === 'word' || token?.kind === 'string' || /^[{},*]$/.test(token?.text ?? '')
    if (!isClause) return []
  }
  return []
}

const declaring = /^(?:const|let|var|function|class|interface|enum|async|default|abstract|declare)$/

function isProperty(tokens: readonly Token[], at: number): boolean {
  return /^\??\.$/.test(tokens[at - 1]?.text ?? '') || tokens[at + 1]?.text === ':'
}
