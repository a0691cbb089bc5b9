// Command joingroup joins a multicast group in a guest, which has no other program
// that does, and prints what comes to it, a line a datagram.
//
//	joingroup INTERFACE GROUP:PORT
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	if err := listen(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "joingroup:", err)
		os.Exit(1)
	}
}

func listen(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: joingroup INTERFACE GROUP:PORT")
	}
	nic, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	group, err := net.ResolveUDPAddr("udp", args[1])
	if err != nil {
		return err
	}
	c, err := net.ListenMulticastUDP("udp", nic, group)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1500)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", buf[:n])
	}
}
