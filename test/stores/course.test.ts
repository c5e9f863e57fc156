/**
 * Runs courses of random verbs over every database. Whatever a store is asked, it must answer like the reference in
 * memory and keep the same rows.
 *
 * Each run takes the same fixed courses, which must meet everything there is, and some of a new seed. `COURSES` sets
 * the number of the latter. A failure prints its seed and path, the shortest course that still differs, and both
 * answers. `COURSE_SEED` and `COURSE_PATH` repeat it.
 */
import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { type Course, cast, courses } from './course.js'
import { Tally } from './course-actor.js'
import { courseDatabases, useMemory } from './course-databases.js'
import { faults } from './course-faults.js'
import { follow, shown, type Tried } from './course-match.js'
import { meetings } from './course-meetings.js'

const sameSeed = 7
const sameCourses = 70
const newCourses = Number(process.env.COURSES ?? 10)
const newSeed = Number(process.env.COURSE_SEED ?? randomInt(2 ** 31))
const path = process.env.COURSE_PATH

/** The greatest number of steps, not counting those that found the namespaces. */
const courseLength = 50
/** The number of courses for each fault. In memory they cost little. */
const faultCourses = 500
/** How often a failing course is tried again to make it shorter. */
const shrinkingTries = 300
/** How often everything must have happened in the fixed courses. */
const leastMeetings = 2

t.setTimeout(900_000)

for (const [name, use] of Object.entries(courseDatabases)) {
  t.test(name, async (t) => {
    const tried = await use(t)
    if (process.env.COURSE_SEED === undefined) {
      const tally = await holds(t, tried, { seed: sameSeed, numRuns: sameCourses })
      t.strictSame(rarities(tally, tried), [], 'everything has happened, and nothing that is not known of')
    }
    await holds(t, tried, { seed: newSeed, numRuns: newCourses, ...(path && { path }) })
  })
}

t.test('courses find a store that differs, and become short', async (t) => {
  for (const [fault, openIn] of Object.entries(faults)) {
    const { failed, course, tries } = await run(await useMemory(openIn), {
      seed: sameSeed,
      numRuns: faultCourses,
    })
    t.ok(failed, `${fault}: found by course ${tries}`)
    t.ok((course?.steps.length ?? 0) <= 4, `${fault}: in ${course?.steps.length} steps`)
  }
})

t.test('courses find no difference between the reference and itself', async (t) => {
  const tried = await useMemory((database, options) => database.open(options))
  await holds(t, tried, { seed: newSeed, numRuns: newCourses })
})

interface Share {
  readonly seed: number
  readonly numRuns: number
  readonly path?: string
}

async function holds(t: Test, tried: Tried, share: Share): Promise<Tally> {
  t.comment(`COURSE_SEED=${share.seed}, ${share.numRuns} courses`)
  const began = performance.now()
  const { failed, verbs, tally } = await run(tried, share)
  if (failed !== undefined) throw new Error(failed)
  t.pass(`${share.numRuns} courses, ${verbs} steps, ${Math.round(performance.now() - began)} ms`)
  return tally
}

/** Returns in words what went wrong, if anything, and the shortened course that showed it. */
async function run(tried: Tried, share: Share) {
  const tally = new Tally()
  let verbs = 0
  let failures = 0
  const property = fc.asyncProperty(courses(courseLength), async (course) => {
    if (failures > shrinkingTries) return
    verbs += course.steps.length
    try {
      await follow(tried, course, tally)
    } catch (error) {
      failures += 1
      throw error
    }
  })
  const details = await fc.check(property, share)
  const [course] = details.counterexample ?? []
  const failed = course && inWords(details, course)
  return { failed, course, verbs, tally, tries: details.numRuns }
}

function inWords(details: fc.RunDetails<[Course]>, course: Course): string {
  const { seed, counterexamplePath, numShrinks, errorInstance } = details
  const { message, stack } = errorInstance as Error
  const isDifference = errorInstance instanceof Error && errorInstance.name === 'Difference'
  return [
    `A store and the reference differ: COURSE_SEED=${seed} COURSE_PATH=${counterexamplePath}`,
    `What is left of its course, made shorter ${numShrinks} times:`,
    ...cast(course).map((step) => shown(step)),
    isDifference ? message : stack,
  ].join('\n')
}

/** Returns what happened too seldom, and what happened although no one knows of it. */
function rarities({ counts }: Tally, { transaction, beside }: Tried): string[] {
  const possible = meetings.filter(
    (meeting) =>
      (transaction !== undefined || !meeting.startsWith('fence: ')) &&
      (beside.reads || meeting !== 'change: others do something beside it'),
  )
  return [
    ...possible.filter((meeting) => (counts.get(meeting) ?? 0) < leastMeetings),
    ...[...counts.keys()].filter((meeting) => !meetings.includes(meeting)),
  ]
}
