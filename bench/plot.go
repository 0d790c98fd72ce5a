package bench

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	plotWidth = 16 * vg.Centimeter
	barWidth  = 5 * vg.Millimeter
	margin    = 4 * vg.Millimeter
)

// encryptedColor and plainColor tell the two kinds of target apart in all bars.
var (
	plainColor     = color.RGBA{R: 0x9a, G: 0xa5, B: 0xb1, A: 0xff}
	encryptedColor = color.RGBA{R: 0x1f, G: 0x6f, B: 0xb2, A: 0xff}
)

// plotThroughput has a bar for each target.
func plotThroughput(results []*Result) (template.HTML, error) {
	p := plot.New()
	p.X.Label.Text = "thousand requests a second"
	p.X.Min = 0
	names := make([]string, len(results))
	plain, encrypted := make(plotter.Values, len(results)), make(plotter.Values, len(results))
	for i, r := range results {
		at := len(results) - 1 - i // the first on top
		names[at] = r.Target
		if _, is := plainName(r.Target); is {
			encrypted[at] = r.IOPS / 1e3
		} else {
			plain[at] = r.IOPS / 1e3
		}
	}
	if err := addBars(p, plain, plainColor, 0); err != nil {
		return "", err
	}
	if err := addBars(p, encrypted, encryptedColor, 0); err != nil {
		return "", err
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	return svg(p, barsHeight(len(results)))
}

func barsHeight(n int) vg.Length { return vg.Length(n)*2*barWidth + 2*vg.Centimeter }

func addBars(p *plot.Plot, v plotter.Values, c color.Color, offset vg.Length) error {
	bars, err := plotter.NewBarChart(v, barWidth)
	if err != nil {
		return fmt.Errorf("draw bars: %w", err)
	}
	bars.Horizontal, bars.Color, bars.Offset = true, c, offset
	bars.LineStyle.Width = 0
	p.Add(bars)
	return nil
}

// plotLatency has a line for each target: the share of requests that took no longer.
func plotLatency(results []*Result) (template.HTML, error) {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "microseconds", "share of requests"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = 0, 1
	p.Add(plotter.NewGrid())
	drawn := false
	for i, r := range results {
		points := latencyLine(r)
		if len(points) == 0 {
			continue
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return "", fmt.Errorf("draw latency: %w", err)
		}
		line.Color, line.Dashes, line.Width = plotutil.Color(i), plotutil.Dashes(i/len(plotutil.DefaultColors)), vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(r.Target, line)
		drawn = true
	}
	if !drawn {
		return "", nil
	}
	p.X.Min, p.X.Max = p.X.Min*0.9, p.X.Max*1.1 // a logarithmic axis needs a range above 0
	return svg(p, 9*vg.Centimeter)
}

func latencyLine(r *Result) (points plotter.XYs) {
	for _, d := range r.Distribution {
		if us := d[0]; us > 0 && !math.IsInf(us, 0) {
			points = append(points, plotter.XY{X: us, Y: d[1]})
		}
	}
	return points
}

// ratioShown is the end of the axis of ratios, with room for the legend. No encryption
// makes a server faster by that much: such a bar is a disturbance.
const ratioShown = 1.5

// plotRatios has a group of bars for each workload: encrypted throughput as a share of
// plain.
func plotRatios(all []overhead) (template.HTML, error) {
	if len(all) == 0 {
		return "", nil
	}
	workloads := distinct(all, func(o overhead) string { return o.Workload })
	targets := distinct(all, func(o overhead) string { return o.Encrypted })
	p := plot.New()
	p.X.Label.Text = "throughput, encrypted / plain"
	p.Add(plotter.NewGrid())
	p.Legend.Top = true
	for k, target := range targets {
		v := make(plotter.Values, len(workloads))
		for _, o := range all {
			if o.Encrypted == target {
				v[len(workloads)-1-slices.Index(workloads, o.Workload)] = min(o.IOPS, ratioShown)
			}
		}
		offset := barWidth * vg.Length(float64(len(targets)-1)/2-float64(k))
		bars, err := plotter.NewBarChart(v, barWidth)
		if err != nil {
			return "", fmt.Errorf("draw bars: %w", err)
		}
		bars.Horizontal, bars.Color, bars.Offset = true, plotutil.Color(k), offset
		bars.LineStyle.Width = 0
		p.Add(bars)
		p.Legend.Add(target, bars)
	}
	slices.Reverse(workloads)
	p.NominalY(workloads...)
	p.X.Min, p.X.Max = 0, ratioShown
	p.Y.Min, p.Y.Max = -0.5, float64(len(workloads))-0.5
	return svg(p, vg.Length(len(workloads)*(len(targets)+1))*barWidth+4*vg.Centimeter)
}

func distinct(all []overhead, of func(overhead) string) (names []string) {
	for _, o := range all {
		if n := of(o); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// svg is a plot as an element of a page.
func svg(p *plot.Plot, height vg.Length) (template.HTML, error) {
	c := vgsvg.New(plotWidth, height)
	p.Draw(draw.Crop(draw.New(c), margin, -2*margin, 0, -margin))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("write plot: %w", err)
	}
	// In front stands what only a file of its own needs.
	i := bytes.Index(b.Bytes(), []byte("<svg"))
	return template.HTML(b.Bytes()[max(i, 0):]), nil // what a plot's text holds is escaped in it
}
