/**
 * Updates the page from descriptions of elements. Existing elements are changed rather than replaced, so that focus,
 * selection and scroll position stay. All data becomes text nodes and attributes, never markup.
 */

import { drawings, type Icon } from './icons.js'

/** Description of an element. */
export interface VNode {
  readonly tag: string
  readonly props: Props
  readonly children: readonly Child[]
}

/** A function returns many children that seldom change; it is not called while the parent's `stamp` stays the same. */
export type Child =
  | VNode
  | string
  | number
  | false
  | null
  | undefined
  | readonly Child[]
  | (() => readonly Child[])

/**
 * `on…` are event handlers and `--…` are CSS variables; false, null and undefined mean no attribute. `key` identifies
 * an element between updates. An unchanged `stamp` means that the element's children have not changed.
 */
export type Props = Readonly<
  Record<string, string | number | boolean | undefined | null | ((event: never) => void)>
>

/** Describes an element: `h('td.num', 'text')` or `h('td.num', { title: 'more' }, 'text')`. */
export function h(tag: string, ...rest: readonly (Child | Props)[]): VNode {
  const [name = tag, ...classes] = tag.split('.')
  const [first] = rest
  const given = isProps(first) ? first : {}
  const children = (isProps(first) ? rest.slice(1) : rest) as readonly Child[]
  return { tag: name, props: classes.length === 0 ? given : { class: classes.join(' '), ...given }, children }
}

function isProps(value: Child | Props): value is Props {
  return value?.constructor === Object && !('children' in (value as object))
}

/** Replaces the children of an element. Children with a `key` are reused wherever they stood. */
export function patch(parent: Element, children: readonly Child[]): void {
  const focused = document.activeElement as HTMLElement
  patchChildren(parent, children)
  if (focused !== document.activeElement) focused.focus({ preventScroll: true })
}

const known = new WeakMap<Node, VNode>()

function patchChildren(parent: Element, children: readonly Child[]): void {
  const wanted = flat(children, [])
  const keyed = new Map<unknown, ChildNode>()
  for (const child of parent.childNodes) {
    const key = known.get(child)?.props.key
    if (key !== undefined) keyed.set(key, child)
  }
  const staying = new Set(wanted.map((child) => (typeof child === 'string' ? undefined : child.props.key)))
  let place = parent.firstChild
  for (const child of wanted) {
    while (place && isOver(place, staying)) place = removed(place)
    const node = fit(child, place, keyed)
    if (node === place) place = place.nextSibling
    else parent.insertBefore(node, place)
  }
  while (place) place = removed(place)
}

function isOver(node: Node, staying: ReadonlySet<unknown>): boolean {
  const key = known.get(node)?.props.key
  return key !== undefined && !staying.has(key)
}

function removed(node: ChildNode): ChildNode | null {
  const next = node.nextSibling
  node.remove()
  return next
}

function flat(children: readonly Child[], into: (VNode | string)[]): (VNode | string)[] {
  for (const child of children) {
    if (Array.isArray(child)) flat(child, into)
    else if (typeof child === 'function') flat(child(), into)
    else if (child || child === 0) into.push(typeof child === 'object' ? (child as VNode) : String(child))
  }
  return into
}

/** Returns the node for this place: an existing one if it fits. */
function fit(child: VNode | string, place: ChildNode | null, keyed: ReadonlyMap<unknown, ChildNode>): Node {
  if (typeof child === 'string') {
    if (!(place instanceof Text)) return document.createTextNode(child)
    if (place.data !== child) place.data = child
    return place
  }
  const { key } = child.props
  const old = key === undefined ? place : keyed.get(key)
  const before = old ? known.get(old) : undefined
  if (old instanceof Element && before?.tag === child.tag && before.props.key === key)
    return update(old, before, child)
  return update(created(child.tag), undefined, child)
}

function created(tag: string): Element {
  const isDrawn = ['svg', 'path', 'rect'].includes(tag)
  return isDrawn ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag)
}

function update(element: Element, before: VNode | undefined, after: VNode): Element {
  known.set(element, after)
  for (const name of Object.keys({ ...before?.props, ...after.props }))
    if (before?.props[name] !== after.props[name]) assign(element, name, after.props[name])
  const { stamp } = after.props
  if (stamp === undefined || stamp !== before?.props.stamp) patchChildren(element, after.children)
  return element
}

function assign(element: Element, name: string, value: Props[string]): void {
  if (name === 'key' || name === 'stamp') return
  if (name.startsWith('on')) (element as unknown as Record<string, unknown>)[name] = value ?? null
  else if (name.startsWith('--')) (element as HTMLElement).style.setProperty(name, String(value ?? ''))
  else if ((value ?? false) === false) element.removeAttribute(name)
  else element.setAttribute(name, value === true ? '' : String(value))
}

export function icon(name: Icon): VNode {
  return h(
    'svg',
    { class: `i i-${name}`, viewBox: '0 0 24 24', 'aria-hidden': 'true' },
    h('path', { d: drawings[name] }),
  )
}
