package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// observer is what looks at a switch while it is measured; empty: nothing.
type observer string

const (
	watched observer = "watched" // metrics are scraped each second, and somebody follows drops
	sampled observer = "sampled" // sFlow sends one frame in 1,000 to a collector
)

// of implements variant.
func (v vswitch) of() string {
	if v.by == "" {
		return ""
	}
	v.by = ""
	return v.name()
}

// observe begins to observe the switch. It ends with the lab.
func (v vswitch) observe(ctx context.Context, l *lab) error {
	switch v.by {
	case watched:
		if err := l.scrape(v.socket(l)); err != nil {
			return err
		}
		_, err := l.start(nil, v.binary, "--socket", v.socket(l), "drops", "--follow")
		return err
	case sampled:
		if _, err := l.run(ctx, "ip", "link", "set", "lo", "up"); err != nil {
			return err
		}
		// It has a socket, and never reads it.
		var collector net.PacketConn
		var err error
		l.do(func() { collector, err = net.ListenPacket("udp", "127.0.0.1:0") })
		if err != nil {
			return err
		}
		context.AfterFunc(l.life, func() { collector.Close() })
		_, err = l.run(ctx, v.binary, "--socket", v.socket(l), "set", "--sflow-collector", collector.LocalAddr().String(), "--sflow-rate", "1000")
		return err
	}
	return nil
}

// scrape reads the metrics of a switch now and each second until the lab ends.
func (l *lab) scrape(socket string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	once := func() error {
		request, err := http.NewRequestWithContext(l.life, "GET", "http://vswitch/metrics", nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("scrape the metrics: %s, %w", answer.Status, err)
		}
		return nil
	}
	if err := once(); err != nil {
		return err
	}
	go func() {
		defer client.CloseIdleConnections()
		for tick := time.Tick(time.Second); ; {
			select {
			case <-l.life.Done():
				return
			case <-tick:
			}
			_ = once() // the switch may have ended; then the measurement fails
		}
	}()
	return nil
}
