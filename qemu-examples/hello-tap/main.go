// Command hello-tap opens a TUN or a TAP device and tells of every packet or frame
// that the kernel sends out by it:
//
//	hello-tap tun tun0
//	hello-tap tap tap0
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/songgao/water"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 || os.Args[1] != "tun" && os.Args[1] != "tap" {
		log.Fatal("write: hello-tap tun|tap NAME")
	}
	kind := water.DeviceType(water.TUN)
	if os.Args[1] == "tap" {
		kind = water.TAP
	}
	dev, err := water.New(water.Config{
		DeviceType: kind,
		// Persist: the device stays when this program ends, so that others
		// can go on with it.
		PlatformSpecificParams: water.PlatformSpecificParams{Name: os.Args[2], Persist: true},
	})
	if err != nil {
		log.Fatalf("%s: %v; run as root, with no other program on the device", os.Args[2], err)
	}
	fmt.Println("device:", dev.Name())

	packet := make([]byte, 65536)
	for {
		n, err := dev.Read(packet)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("read", n, "bytes")
	}
}
