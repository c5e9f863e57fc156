/** Line drawings on a 24 by 24 grid, as SVG paths. The style sheet defines the stroke. */
export const drawings = {
  alert: 'M12 4L3 20h18zM12 10v5M12 17v1',
  block: 'M6 11h12v9H6zM8 11V8a4 4 0 018 0v3',
  check: 'M5 13l4 4L19 7',
  clock: 'M12 3a9 9 0 100 18 9 9 0 000-18M12 7v5l3 2',
  close: 'M6 6l12 12M18 6L6 18',
  down: 'M12 5v14M6 13l6 6 6-6',
  free: 'M6 11h12v9H6zM8 11V8a4 4 0 018-2',
  move: 'M4 12h15M13 6l6 6-6 6',
  none: 'M12 3a9 9 0 100 18 9 9 0 000-18M6 6l12 12',
  pause: 'M8 5v14M16 5v14',
  person: 'M12 4a4 4 0 100 8 4 4 0 000-8M4 21a8 7 0 0116 0',
  play: 'M7 5l12 7-12 7z',
  plus: 'M12 5v14M5 12h14',
  ring: 'M12 7a5 5 0 100 10 5 5 0 000-10',
  star: 'M12 3l3 6 6 1-4 4 1 6-6-3-6 3 1-6-4-4 6-1z',
  theme: 'M12 3a9 9 0 100 18 9 9 0 000-18v18',
} as const

export type Icon = keyof typeof drawings
