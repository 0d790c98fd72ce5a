package explain

import (
	"cmp"
	"slices"
)

// Code is a part of a program: what encrypts ("crypto"), what copies or clears memory
// ("memory"), a package by its path, a library by its file, or the kernel's work on
// page faults and interrupts.
type Code struct {
	Name    string  `json:"name"`
	Ms      float64 `json:"ms"`
	Share   float64 `json:"share"` // of Total.UserMs
	Samples uint64  `json:"samples"`
}

// Function is a function with its share of Total.UserMs.
type Function struct {
	Name  string  `json:"name"`
	Code  string  `json:"code"`
	Share float64 `json:"share"`
}

// Names of parts.
const (
	CodeCrypto = "crypto"
	CodeMemory = "memory copies"
	// CodeKernel is faults and interrupts.
	CodeKernel = "(kernel)"
	// CodeUnknown has no symbol, CodeUnseen no sample.
	CodeUnknown = "(unknown)"
	CodeUnseen  = "(not sampled)"
)

// place is where code is: a part of a program, and a function in it.
type place struct{ code, function string }

const topFunctions = 20

// addCode divides each thread's time in its own code as its samples are.
func (o *Report) addCode(samples map[sampleKey]uint64, symbol symbolizer) {
	threads := o.byTID()
	for key, n := range samples {
		if t := threads[int(key.TID)]; t != nil {
			t.Samples += n
		}
	}
	parts, functions := map[string]*Code{}, map[place]float64{}
	total := 0.0
	for key, n := range samples {
		t := threads[int(key.TID)]
		if t == nil {
			continue
		}
		at := place{CodeKernel, CodeKernel}
		if key.IP != 0 {
			at = symbol(t.TID, key.IP)
		}
		time := t.UserMs * float64(n) / float64(t.Samples)
		if at.code == CodeCrypto {
			t.CryptoMs += time
		}
		part(parts, at.code).add(time, n)
		functions[at] += time
	}
	for _, t := range threads {
		total += t.UserMs
		if t.Samples == 0 && t.UserMs > 0 {
			part(parts, CodeUnseen).add(t.UserMs, 0)
		}
	}
	o.setCode(parts, functions, total)
}

func part(parts map[string]*Code, name string) *Code {
	if parts[name] == nil {
		parts[name] = &Code{Name: name}
	}
	return parts[name]
}

func (c *Code) add(ms float64, samples uint64) {
	c.Ms += ms
	c.Samples += samples
}

func (o *Report) setCode(parts map[string]*Code, functions map[place]float64, total float64) {
	o.Code, o.Functions = []Code{}, []Function{}
	if total == 0 {
		return
	}
	for _, c := range parts {
		c.Share = c.Ms / total
		o.Code = append(o.Code, *c)
	}
	for at, time := range functions {
		o.Functions = append(o.Functions, Function{at.function, at.code, time / total})
	}
	slices.SortFunc(o.Code, func(a, b Code) int { return cmp.Or(cmp.Compare(b.Ms, a.Ms), cmp.Compare(a.Name, b.Name)) })
	slices.SortFunc(o.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name))
	})
	o.Functions = o.Functions[:min(len(o.Functions), topFunctions)]
}
