package speed

import "time"

// Case is one operation to measure.
type Case struct {
	Name string
	// Bytes is what one call of Do works on.
	Bytes int
	Do    func()

	// Rates are the samples of all rounds, in bytes per second; Blocks has the
	// median of each block of rounds.
	Rates, Blocks []float64
}

// slice is how long one sample takes at least. It is short, so that most samples
// are not disturbed and the median is that of a machine of our own.
const slice = 200 * time.Microsecond

// Plan says how much to measure.
type Plan struct {
	Blocks, Rounds int
	// Between runs after each block, which is the place for what takes long.
	Between func() error
}

// Run takes one sample of every case in each round.
func (p Plan) Run(cases []*Case) error {
	for range p.Blocks {
		for range p.Rounds {
			for _, c := range cases {
				c.Rates = append(c.Rates, c.sample())
			}
		}
		for _, c := range cases {
			block := c.Rates[len(c.Rates)-p.Rounds:]
			c.Blocks = append(c.Blocks, SpreadOf(block).Median)
		}
		if err := p.Between(); err != nil {
			return err
		}
	}
	return nil
}

// sample returns bytes per second. The first call warms the caches up; calls that
// are longer than a slice are measured by themselves.
func (c *Case) sample() float64 {
	start := time.Now()
	c.Do()
	warm := time.Since(start)
	calls := 1
	if warm < slice {
		calls = int(slice/max(warm, 1)) + 1
	}
	start = time.Now()
	for range calls {
		c.Do()
	}
	return float64(c.Bytes) * float64(calls) / time.Since(start).Seconds()
}
