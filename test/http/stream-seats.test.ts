/** Tests the seats for viewers of streams: there is a limit for all actors together and one for each. */
import t from 'tap'
import { Seats } from '../../plugin/http/stream/seats.js'

t.test('a seat that is given back twice makes room for one', async (t) => {
  const seats = new Seats({ streams: 2, streamsPerActor: 2 })
  const giveBack = seats.take('mira')
  seats.take('mira')
  giveBack()
  giveBack()
  t.type(seats.take('noor'), 'function')
  t.throws(() => seats.take('noor'), { message: 'This process serves 2 streams at a time.' })
})
